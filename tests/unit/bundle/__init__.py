# SPDX-License-Identifier: Apache-2.0
from tests.support.peers import skip_where_asked

skip_where_asked("cryptography")  # packagers without it: nothing of the room can be judged then
