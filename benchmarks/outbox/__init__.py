"""What recording a session costs and keeps, beside what people use today: `make bench`."""
