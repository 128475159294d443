"""Where pictures come from, who is a patient, and the cache.

- `pictures`: a picture, a source of pictures, whose picture it is by its name
- `sources`: the sources by name; `kaggle` the archive and its folder, `phantom` generated pictures
- `sealed`: the one road to the test pictures
- `split`: training and validation by patient
- `decode`: encoded pictures to grey pixels; `prepare` does so once for all of them, `cache` says where the result lies
"""
