"""The base network: build (layers, optimizer), augment, fit (training), save, device (precision, memory)."""
