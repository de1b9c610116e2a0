"""What operators, sensors, triggers and plugins share: handles in XCom, links, states, deferral."""
