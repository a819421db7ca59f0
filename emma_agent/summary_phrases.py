"""What a summary for a student says, in the languages that Emma has sentences for.

Used where no model writes one. The numbers and words are put in by `summaries.py`; the sentences are
made so that they fit any number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["PHRASES", "Phrases"]


@dataclass(frozen=True, slots=True)
class Phrases:
    """Sentences of one language; what stands in braces is put in.

    Attributes:
        joint: what stands between two sentences; between two words, `comma`.
        correction: one mistake, by `said` and `target`.
    """

    lesson: str
    talk: str
    minutes: str
    new_words: str
    reviewed: str
    remember: str
    repaired: str
    exercises: str
    finished: str
    unfinished: str
    correction: str = "“{target}” (≠ “{said}”)"
    comma: str = ", "
    joint: str = " "


PHRASES: Final[dict[str, Phrases]] = {
    "en": Phrases(
        lesson="You worked on “{title}”.",
        talk="You talked with Emma.",
        minutes="Minutes: {minutes}.",
        new_words="New words: {words}.",
        reviewed="You brought back these words: {words}.",
        remember="Keep in mind: {corrections}.",
        repaired="You then said this right yourself: {words}.",
        exercises="Exercises: {right} of {all} right.",
        finished="You have reached the aims of the lesson. Well done!",
        unfinished="Next time we go on from here.",
        correction="“{target}” (not “{said}”)",
    ),
    "de": Phrases(
        lesson="Du hast an „{title}“ gearbeitet.",
        talk="Du hast mit Emma gesprochen.",
        minutes="Minuten: {minutes}.",
        new_words="Neue Wörter: {words}.",
        reviewed="Diese Wörter hast du wiederholt: {words}.",
        remember="Merke dir: {corrections}.",
        repaired="Das hast du danach selbst richtig gesagt: {words}.",
        exercises="Übungen: {right} von {all} richtig.",
        finished="Du hast die Ziele der Lektion erreicht. Gut gemacht!",
        unfinished="Beim nächsten Mal machen wir hier weiter.",
        correction="„{target}“ (nicht „{said}“)",
    ),
    "es": Phrases(
        lesson="Has trabajado en «{title}».",
        talk="Has hablado con Emma.",
        minutes="Minutos: {minutes}.",
        new_words="Palabras nuevas: {words}.",
        reviewed="Has repasado estas palabras: {words}.",
        remember="Recuerda: {corrections}.",
        repaired="Después lo has dicho bien: {words}.",
        exercises="Ejercicios: {right} de {all} correctos.",
        finished="Has alcanzado los objetivos de la lección. ¡Muy bien!",
        unfinished="La próxima vez seguiremos desde aquí.",
        correction="«{target}» (no «{said}»)",
    ),
    "ja": Phrases(
        lesson="「{title}」を学びました。",
        talk="エマと話しました。",
        minutes="時間：{minutes}分。",
        new_words="新しい言葉：{words}。",
        reviewed="復習した言葉：{words}。",
        remember="覚えておきましょう：{corrections}。",
        repaired="その後、自分で正しく言えました：{words}。",
        exercises="練習問題：{all}問中{right}問正解。",
        finished="レッスンの目標を達成しました。よくできました！",
        unfinished="次回はここから続けましょう。",
        correction="「{target}」（×「{said}」）",
        comma="、",
        joint="",
    ),
    "ar": Phrases(
        lesson="موضوع الدرس: «{title}».",
        talk="كانت محادثة مع إيما.",
        minutes="المدة بالدقائق: {minutes}.",
        new_words="كلمات جديدة: {words}.",
        reviewed="كلمات تمت مراجعتها: {words}.",
        remember="للتذكر: {corrections}.",
        repaired="قيل بعد ذلك بشكل صحيح: {words}.",
        exercises="التمارين الصحيحة: {right} من {all}.",
        finished="تحققت أهداف الدرس. أحسنت!",
        unfinished="في المرة القادمة نواصل من هنا.",
        correction="«{target}» (وليس «{said}»)",
        comma="، ",
    ),
}
"""By the primary subtag of BCP 47."""
