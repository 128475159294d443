"""Where pictures come from, who is a patient, what is wrong with them, and the cache.

- `__main__`: python -m pneumo.data; `fetch` downloads pictures
- `pictures`: a picture, a source of pictures, whose picture it is by its name
- `sources`: the sources by name; `kaggle` the archive and its folder, `folder` any folder or zip, `medmnist` an npz,
  `phantom` generated pictures; `archive` reads the files of a folder or a zip that nobody has to trust
- `sealed`: the one road to the test pictures
- `split`: training and validation by patient
- `decoding/`: encoded pictures to grey pixels, also within a registered model; `dicom` the patients of one format;
  `prepare` decodes all pictures once, `cache` says where the result lies
- `audit/`: copies, leaks, patients on two sides, splits that differ, pictures that stand out
"""
