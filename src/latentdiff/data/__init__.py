"""Images, captions and cached latents."""
