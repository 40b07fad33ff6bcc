"""What a library is put through: a function per script, raising where it goes its own way."""
