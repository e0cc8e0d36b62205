# The README's command: unit tests, the style, the service, the lab.
need cc build-essential
step tests cargo test
