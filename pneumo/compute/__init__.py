"""Where trials run.

place     what every place does: submit a task, give the events of the trials under way
local     worker processes of this machine, one GPU each
worker    the inside of a worker process
"""
