"""What the splits of a task are called."""

TRAIN, DEV, TEST, UNLABELLED, AUGMENTED = "train", "dev", "test", "unlabelled", "augmented"
