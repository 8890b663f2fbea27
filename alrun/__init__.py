"""Deep active-learning experiments: `alrun strategy=dgal dataset=cifar10`."""
