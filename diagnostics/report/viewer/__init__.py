"""The token viewer: rollouts as text, each token coloured by a measure of its position."""
