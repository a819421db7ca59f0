"""What Emma can do in a lesson: one module for each family of function tools.

Tools read and write `RunContext.userdata` (`LessonState`) in memory. Who the student is
comes from there too and is never an argument.
"""
