//! Episodes as LeRobotDataset v3.0.
