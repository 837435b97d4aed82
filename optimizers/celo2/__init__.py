from timetrial.optimizers.celo2.transform import scale_by_celo2
