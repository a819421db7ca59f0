from livekit.agents import Agent, AgentServer, AgentSession, JobContext
from livekit.plugins import convex, openai

server = AgentServer()
convex.Recovery.attach(server, client=convex.AsyncConvexClient)  # what a killed job left


@server.rtc_session(agent_name="my-agent")
async def entrypoint(ctx: JobContext) -> None:
    client = convex.AsyncConvexClient()  # CONVEX_URL, CONVEX_AGENT_KEY
    session = AgentSession[None](stt=openai.STT(), llm=openai.LLM(), tts=openai.TTS())
    recorder = convex.SessionRecorder.attach(session, ctx=ctx, client=client)
    await session.start(agent=Agent(instructions="Be helpful."), room=ctx.room)
