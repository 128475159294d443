"""Values and decisions without side effects. This folder imports no other folder of the package.

experiment          the experiment; experiment_file reads it, and the blocks are in search, compute and promotion; duration
schema              the JSON schema of the experiment file, for editors
hyperparameters     the hyperparameters; space and space_reader are the space that a study searches
algorithms          the engines with their algorithms and pruners
candidate, result   a proposal of an engine, and the result of a trial; run is a trial's run as MLflow stores it
study_record        a whole study as MLflow stores it, which a report is made from
comparison          a trial compared with the tutorial's network
objective           the objectives; stopping, selection and best decide by them
errors, wording     errors, and sentences that several folders use
cores               the cores that this process may use, which each folder divides its threads by
masking             masking of passwords
"""
