"""python -m pneumo.search: run a study, or resume one.

steps        what a search does, in order; start reading here
loop         take a training from a schedule, let a place run it, hand back its result
schedule     the schedule of a study: the engine proposes trials until the budget is spent
confirm      the schedule of confirmations: the best trials again, with other seeds
request      what a search was asked for, and the values that its steps hand on; places where its trials run
recorder     the study's run in MLflow and the runs of its trainings; description the text at its head, tables its tables
flush        send the outbox to MLflow and wait for it
preflight    what is checked before a study starts or is resumed
screen       what is shown while it runs; results what is shown at the end; summary what to do next
dry_run      --dry-run: show what would run; watch --watch: show a study that runs elsewhere
comparison   the best trial and the tutorial's network, compared with an interval
retention    which models are kept
integrity    --check: is the record of a study complete?
"""
