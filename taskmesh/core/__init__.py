"""The pure core: state machines that decide everything, do no I/O and read no clock."""
