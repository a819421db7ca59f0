import asyncio

from livekit.agents.llm import ChatContext
from livekit.plugins import convex


async def said_before(client: convex.AsyncConvexClient, who: convex.SessionIdentity) -> ChatContext:
    """The conversation that this job carries on."""
    await convex.deliver_dead_journals(client, subject=who.subject, timeout_s=2.0)
    try:
        rows = await client.query("talks:latest", {"sessionKey": who.session_key}, timeout_s=1.0)
    except convex.ConvexClientError:
        return await asyncio.to_thread(said_on_disk, client.url, who)
    said = ChatContext.empty()
    for row in rows if isinstance(rows, list) else []:
        match row:
            case {"role": "user", "text": str(text)}:
                said.add_message(role="user", content=text)
            case {"role": "assistant", "text": str(text)}:
                said.add_message(role="assistant", content=text)
    return said


def said_on_disk(deployment: str, who: convex.SessionIdentity) -> ChatContext:
    runs = convex.read_journals(
        subject=who.subject,
        session_key=who.session_key,
        deployment=deployment,
        types=[convex.MessageRecord],
    )
    # An item may be there twice: a realtime model's repeat is the newer one.
    latest = {item.item_id: item for run in runs for item in run.records}
    said = ChatContext.empty()
    for item in latest.values():
        said.add_message(role=item.role, content=item.text, created_at=item.created_at)
    return said
