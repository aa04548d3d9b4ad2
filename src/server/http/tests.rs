//! Tests of the routes against a real engine.
