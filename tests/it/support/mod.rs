//! What the tests stand on: the gateway under test, real brokers, real clients, and the processes they are.

pub mod authority;
pub mod clients;
pub mod gateway;
pub mod mosquitto;
pub mod process;
pub mod rabbitmq;
pub mod tools;
