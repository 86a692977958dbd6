"""Recorded data of any format as a stream of episodes, in constant memory."""
