"""Many robots: a robot in a wanted state, and Ansible's playbook around it."""
