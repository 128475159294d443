"""The convolutional network and everything that needs TensorFlow or Keras.

- training: `build` (layers, optimizer), `augment` (random transforms), `fit` (the training loop), `checkpoint` (saving and
  resuming a training), `device` (GPU or CPU, precision, memory)
- afterwards: `load` (saved networks), `explain` (Grad-CAM), `export` (ONNX and TFLite)
"""
