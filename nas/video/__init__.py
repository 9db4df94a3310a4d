"""A trained network on videos and cameras, frame by frame. OpenCV (`framebudget[video]`) is imported when needed."""
