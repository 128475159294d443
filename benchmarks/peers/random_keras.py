"""Search at random with plain Keras. The only record is a CSV file with one line per trial."""

import random
from pathlib import Path

import common
import keras

given = common.arguments()
chance = random.Random(given.seed)
keras.utils.set_random_seed(given.seed)
with Path("trials.csv").open("w") as table:
    for trial in range(1000):
        layers, filters, size = chance.randint(1, 4), chance.choice([16, 32, 64]), chance.choice([64, 96])
        dropout, rate = chance.uniform(0, 0.5), 10 ** chance.uniform(-4, -2)
        training, validation = common.datasets(given.pictures, size)
        model = common.build(layers, filters, size, dropout, rate)
        record = common.Record(given.events, str(trial))
        history = model.fit(training, validation_data=validation, epochs=common.EPOCHS, callbacks=[record], verbose=0)
        best = max(history.history["val_auc"])
        print(layers, filters, size, dropout, rate, best, sep=",", file=table, flush=True)
        keras.utils.clear_session()
