"""What each action does, told as a story in terms of the rooms beside this one."""
