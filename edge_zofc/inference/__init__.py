"""A picture file -> features, under any adapter."""
