"""Running trials: where they run, and what they need in memory and on the disk.

place      the interface of a place where trials run, and the events of trials
local      worker processes of this machine, one GPU each
devices    what trials train on: GPUs, shares of them, or the CPU; gpus lists those that TensorFlow can use
worker     the code that runs in a worker process
ray_place    actors of a Ray cluster
ray_worker   the code that runs in such an actor
ray_cluster  connecting to a Ray cluster, and what its nodes have room for
workers    how many of them a study gets
memory     how much memory is there, and whether the kernel ended a process for it
footprint  estimates of how many bytes a study writes and its trials need in memory
disk       whether these bytes fit on the disk, and errors of a full disk
"""
