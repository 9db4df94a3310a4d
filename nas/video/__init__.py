"""A trained network on videos and cameras, frame by frame. OpenCV (`framebudget[video]`) is loaded by what needs it."""
