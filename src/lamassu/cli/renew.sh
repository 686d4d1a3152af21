#!/bin/bash
# Device certificate renewal script

CERT_FILE="/etc/device/cert.pem"
KEY_FILE="/etc/device/key.pem"
DMS_URL="https://est.example.com/.well-known/est/production-dms"

# Check expiration
EXPIRY=$(openssl x509 -in $CERT_FILE -noout -enddate | cut -d= -f2)
EXPIRY_EPOCH=$(date -d "$EXPIRY" +%s)
NOW_EPOCH=$(date +%s)
DAYS_REMAINING=$(( ($EXPIRY_EPOCH - $NOW_EPOCH) / 86400 ))

# Renew if within 30 days of expiration
if [ $DAYS_REMAINING -lt 30 ]; then
  echo "Certificate expires in $DAYS_REMAINING days, renewing..."
  
  # Generate new CSR
  openssl req -new -key $KEY_FILE -out /tmp/renew.csr \
    -subj "/CN=$(hostname)/O=YourOrg"
  
  # Re-enroll using current certificate
  openssl req -in /tmp/renew.csr -outform DER | base64 -w 0 > /tmp/renew.b64
  
  curl -k --cert $CERT_FILE --key $KEY_FILE \
    -H "Content-Type: application/pkcs10" \
    --data-binary "@/tmp/renew.b64" \
    "$DMS_URL/simplereenroll" -o /tmp/renewed.b64
  
  # Install new certificate
  base64 -d /tmp/renewed.b64 | \
    openssl pkcs7 -inform DER -print_certs -out /tmp/renewed.pem
  
  mv /tmp/renewed.pem $CERT_FILE
  systemctl reload device-agent
fi
