"""python -m pneumo.promote: register a study's best trial as a model if it passes the gate.

steps            what a promotion does, in order; start reading here
context          what stays the same during one promotion
checks           requests that are refused before anything is written
choose           the run to promote
operating_point  its temperature and threshold, from validation pictures
reference        the model to compare with: the champion, or the baseline
package          a trial's network as a model that takes pictures
evaluate         both models on the test pictures: predictions, metrics, the gate
record           the promotion's run: what it records, and how it is read back; card the facts of the model card
description      the description at the head of that run
register         the version in the registry, and its alias
report           what is printed at the end
"""
