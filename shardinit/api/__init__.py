"""What users call: the drop-ins, shard_new_states, plan, compile, execute."""
