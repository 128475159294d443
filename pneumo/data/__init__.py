"""The pictures: where they come from, whose they are, what is wrong with them, and how they are decoded.

- `__main__`: the command `python -m pneumo.data`; `fetch`: its downloads
- `pictures`: a picture, and a source of pictures
- `sources`: the table of sources. Each has a module: `kaggle` (the public archive), `folder` (a user's own folder or zip),
  `medmnist` (an npz) and `phantom` (generated pictures)
- `archive`: the files of a folder or zip that need not be trusted
- `sealed`: the only way to the test pictures
- `patients`, `patient_names`, `patients_table`, `dicom_patients`: each picture's patient, and how it is known
- `split`: training and validation by patient
- `picture_files`, `layout`: which files of an archive are pictures, and the folders that tell their class and part
- `decoding/`: encoded pictures to grey pixels; a registered model carries a copy
- `prepare`: decodes the training pool once; `cache`: where the result is stored
- `audit/`: copies, leaks, patients in two parts, parts that differ, outliers, shortcuts
"""
