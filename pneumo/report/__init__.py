"""The verb `report`: a recorded study, or several side by side, as one HTML page.

`__main__` reads the command line and the records (`tracking.study_record`); `evidence.report` makes the page.
"""
