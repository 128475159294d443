"""Run one trial in a worker process.

- `trial`: the functions that a worker process enters; they run a trial from its start to its result
- `task`: what a worker receives (`TrialTask`) and what a replay returns (`TrainingResult`)
- `train`: build and train the network; everything that decides the numbers
- `record`: log the result of a training in the trial's MLflow run
- `provenance`: tags that identify code, libraries and threads
- `checkpoint_folder`: the driver's side of checkpoints: their paths, and their deletion
"""
