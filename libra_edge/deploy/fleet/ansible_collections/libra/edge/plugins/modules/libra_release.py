"""What `ansible-doc libra.edge.libra_release` shows; the action of the same name does the work."""

DOCUMENTATION = r"""
module: libra_release
short_description: A release of a robot policy on a robot
description:
  - Installs a release beside the one that runs, replays its golden vectors on the robot and
    switches by one rename, or leaves everything as it was.
  - Runs on the controller and reaches the robot with its own C(ssh); the robot needs no Python.
options:
  release:
    description: Release directory or C(.libra) file on the controller.
    type: path
    required: true
  state:
    description:
      - C(active), the robot runs the release.
      - C(installed), it lies in the other slot.
      - C(good), the robot runs the release and was marked good; waits O(wait_s) for that.
      - C(rolled_back), the robot does not run the release; if it does, it goes back.
    type: str
    choices: [active, installed, good, rolled_back]
    default: active
  root:
    description: The robot's folder.
    type: path
    default: /opt/libra
  allow_unsigned:
    description: Take a release without signature, if the robot's trust file does.
    type: bool
    default: false
  mark_good:
    description: Mark the release good right away, where no service on the robot does so.
    type: bool
    default: false
  health_timeout_s:
    description: How long the robot waits for mark-good before it rolls back; left out, the agent's.
    type: int
  wait_s:
    description: How long O(state=good) waits.
    type: float
    default: 0
  ssh_config:
    description: As C(ssh -F), in place of the user's own files.
    type: path
attributes:
  check_mode:
    support: full
    description: The plan is made by the code that would carry it out.
  diff_mode:
    support: full
    description: What the robot runs before and after.
author: the Libra Edge authors
"""

EXAMPLES = r"""
- name: Run the new policy
  libra.edge.libra_release:
    release: out/pick-and-place

- name: Go back, should the new policy run
  libra.edge.libra_release:
    release: out/pick-and-place
    state: rolled_back
"""

RETURN = r"""
condition:
  description: Of the release on the robot.
  type: str
  returned: success
runs:
  description: What the robot runs now, or would.
  type: str
  returned: success
sent_bytes:
  description: Bytes of members that crossed the line.
  type: int
  returned: success
code:
  description: Stable code of the error.
  type: str
  returned: failure
"""
