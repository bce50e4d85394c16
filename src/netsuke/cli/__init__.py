"""The command line: one thin file per verb.

Belongs here: options, their text, where output goes, exit codes. Does not: any work; a verb calls the function of the
same name and prints what comes back.

Contract: a verb's file defines `register(app)`. Results go to stdout, progress and errors to stderr, colour only to a
terminal. Every verb takes --json FILE (keys in docs/json.md) and --debug. Exit codes: 0 contract met, 2 wrong use,
3 contract missed but a result was written, 4 a check or limit failed, 5 the environment lacks something.
To add a verb: write its file and add its name to `main.VERBS`.
"""
