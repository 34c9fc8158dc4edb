"""What is on the disk: durable, bounded, versioned."""
