"""What a user types."""


def command(*words: object) -> list[str]:
    """A command's words, as the shell would hand them over."""
    return [str(word) for word in words]
