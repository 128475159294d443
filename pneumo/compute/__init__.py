"""Running trials: where they run, and what they need on the disk.

place      the interface of a place where trials run, and the events of trials
local      worker processes of this machine, one GPU each
worker     the code that runs in a worker process
footprint  estimates of how many bytes a study writes
disk       whether these bytes fit on the disk, and errors of a full disk
"""
