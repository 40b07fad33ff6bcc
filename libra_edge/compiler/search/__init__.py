"""Which layers to keep in high precision: what each one does to outputs, and what it costs."""
