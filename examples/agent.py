"""An agent that answers in writing; all that is said is kept in Convex. How to run it: README.md."""

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, room_io
from livekit.plugins import convex, openai

server = AgentServer()
convex.Recovery.attach(server, client=convex.AsyncConvexClient)  # what a killed job left


class Host(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="You are a friendly host. Answer in one short sentence.")

    async def on_enter(self) -> None:
        self.session.generate_reply(instructions="Greet the guest.")


@server.rtc_session(agent_name="host")
async def entrypoint(ctx: JobContext) -> None:
    await ctx.connect()  # or the greeting may come before anybody can read it
    client = convex.AsyncConvexClient()  # CONVEX_URL, CONVEX_AGENT_KEY
    session = AgentSession[None](  # nothing is heard: a line of text is a turn
        llm=openai.LLM(),  # OPENAI_API_KEY
        vad=None,
        turn_handling={"turn_detection": "manual"},
    )
    convex.SessionRecorder.attach(session, ctx=ctx, client=client)
    in_writing = room_io.RoomOptions(audio_input=False, audio_output=False)
    await session.start(agent=Host(), room=ctx.room, room_options=in_writing)


if __name__ == "__main__":
    cli.run_app(server)
