"""In the place of a shard: does whatever it is told, in a file, and answers in another one."""

import json
import os
import sys
import time

settings = json.load(open(sys.argv[sys.argv.index("--config") + 1]))
run = os.path.dirname(settings["readyFile"])
with open(settings["logFile"], "w") as log:
    log.write("a line\n")
os.umask(int(settings.get("umask", "077"), 8))
with open(settings["readyFile"] + ".new", "w") as ready:
    json.dump({"pid": os.getpid(), "instance": "i", "address": "http://127.0.0.1:1"}, ready)
os.rename(settings["readyFile"] + ".new", settings["readyFile"])
kept: dict[str, object] = {}
while True:
    time.sleep(0.02)
    try:
        with open(os.path.join(run, "order")) as order:
            code = order.read()
    except FileNotFoundError:
        continue
    os.remove(os.path.join(run, "order"))
    try:
        answer = repr(eval(code, {"os": os, "kept": kept, "settings": settings, "__import__": __import__}))
    except BaseException as error:
        answer = type(error).__name__
    with open(os.path.join(run, "answer.new"), "w") as file:
        file.write(answer)
    os.rename(os.path.join(run, "answer.new"), os.path.join(run, "answer"))
