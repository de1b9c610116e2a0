"""Files on the Airflow side: their checksums, and files of which only a part is here."""
