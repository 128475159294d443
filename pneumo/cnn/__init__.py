"""The base network: build (layers, optimizer), augment, fit (training), checkpoint (training on later), save, device."""
