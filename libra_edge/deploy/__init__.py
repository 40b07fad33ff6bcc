"""What runs beside the robot: checks of the machine."""
