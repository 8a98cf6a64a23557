//! The same session suite (MQTT.js, everything an application does) through the gateway at real brokers.

mod mosquitto;
mod rabbitmq;
