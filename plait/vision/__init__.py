"""Vision encoders: pictures to features."""
