"""Emma, a voice language tutor on LiveKit whose lessons are kept in Convex."""
